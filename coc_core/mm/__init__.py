"""What the OpenMMLab plugins share. Importing this package alone loads no mm* package; its modules do."""
