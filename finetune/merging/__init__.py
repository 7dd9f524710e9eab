"""Base and adapter into merged weights, on the safetensors files themselves, a tensor at a time."""
