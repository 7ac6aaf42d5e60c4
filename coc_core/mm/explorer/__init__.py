"""Looks at the clusters of any model on any picture: for pictures, and for a page in the browser."""
