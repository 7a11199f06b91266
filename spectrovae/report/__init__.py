"""Pictures, pages and folders that show a trained model."""
