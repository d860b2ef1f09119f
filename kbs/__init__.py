"""An attestation-gated key broker.

A workload in a trusted execution environment proves what it is; only if every
required proof holds and a policy grants does a key leave, sealed to a key pair
that exists inside that environment, after the decision is durable in a log.
"""

__version__ = "0.1.0"
