"""What only answers PyTorch's names."""
