"""What ``tools/predict.py`` is made of: from files to samples, through a model, to rows of a table and pictures."""
