"""Azure confidential VMs: a hardware report that vouches for the vTPM's key."""
