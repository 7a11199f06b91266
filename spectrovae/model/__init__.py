"""The model and its parts."""
