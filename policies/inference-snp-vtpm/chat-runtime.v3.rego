package agent_policy

# Third version: the server may be started, nothing else, and nobody may exec into it.
default AllowExec := false

AllowStart {
    input.image == "registry.example/chat-server@sha256:9329e4e3623a98d7d8b851bc9619faab43361b59800bc27473ba5b7e59174868"
}
