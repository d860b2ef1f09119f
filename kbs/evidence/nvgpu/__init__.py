"""NVIDIA GPUs and NVSwitches: SPDM reports, and the manifests they are held against."""
