"""Android phones, reached over ADB and measured with TFLite's own `benchmark_model`.

    address --connect--> Transport --+--> state.read_state      what the phone is and how it is doing
                                     +--> benchmark_model       command line, and its output read
                                     `--> agent.AndroidAgent    the `DeviceAgent` made of both

`transport` says what is asked of a link; `adb_shell_transport` is the link over adb-shell (TCP and USB, no adb binary).
"""
