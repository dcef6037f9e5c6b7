"""From a module to its steps: torch.export's functional graph, read operator by operator."""
