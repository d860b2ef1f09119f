package agent_policy

default CreateContainerRequest := false

CreateContainerRequest if input.OCI.Process.Args == ["/usr/bin/serve", "--model", "/run/model"]

default ExecProcessRequest := false
