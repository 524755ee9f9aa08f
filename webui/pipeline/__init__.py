"""The flow as functions: request and model in, pictures out."""
