"""What PEFT calls an adapter's files, in a checkpoint of its training, in a run, and for vLLM."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
