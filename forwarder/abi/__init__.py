"""The Linux interfaces that compiled code touches directly: constants, layouts, system calls, atomics.

Nothing here holds state or opens anything, so the forwarder's packet engine and the lab's traffic
generator both build on it without knowing each other.
"""
