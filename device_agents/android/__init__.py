"""Android phones, reached over ADB and measured with TFLite's own `benchmark_model`.

    address --open_transport--> Transport --+--> state.read_phone      what the phone is and how it is doing
                                            +--> benchmark_model       command line, and its output read
                                            `--> agent.AndroidAgent    the `DeviceAgent` made of both

`transport` says what is asked of a link. `adb_shell_transport` is the link over adb-shell: TCP and USB, no adb program.
`adb_server_transport` is the one over an adb server: phones paired over Wi-Fi, and all of them where one runs.
`listing`, `setup` and `doctor` are what `nas-edge devices` does.
"""
