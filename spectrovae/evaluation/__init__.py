"""What a trained model is worth: distances, judging, diagnosis, collections of codes."""
