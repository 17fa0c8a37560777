"""Language models: the protocol, the Hugging Face implementation, and the model cache."""
