"""What training needs beside the model: optimizer, metrics, callbacks, several machines, resuming."""
