"""The bi-level gradient of BiP beside the exact one."""
