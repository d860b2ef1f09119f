"""Release policies: strict reading, appraisal and explanation."""
