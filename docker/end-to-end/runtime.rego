package runtime
# What the container runtime of the guest would enforce: this image, and nothing else.
default allow = false
allow { input.image == "registry.acme.example/chat@sha256:4f1c" }
