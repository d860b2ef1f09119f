package runtime

default allow := false

allow { input.image == "registry.example/demo@sha256:87c0f2a1bb8ad5311a3d83edb4bc92ae70e0cf2cab707108462bc43cfdfa75b0" }
