"""What must be fast: functions on raw arrays, one file per family. Below the tape: nothing here knows Tensor."""
