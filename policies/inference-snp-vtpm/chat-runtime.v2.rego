package agent_policy

# Second version: still allowed exec. Retired.
default AllowExec := true
