"""Problems of data: of whole data sets before training, and of each sample while it is loaded."""
