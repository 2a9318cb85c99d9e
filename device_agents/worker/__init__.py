"""What runs on a device: needs Python, NumPy and a TFLite runtime, nothing else.

To measure on a board, copy this folder alone and start it from its parent:

    scp -r device_agents/worker board:
    ssh board python3 -m worker

It then answers framed requests (`frames`) on stdin and stdout. All imports in this
folder are relative, so the folder works under any package name.

Boards have old Pythons: this folder is written for Python 3.7, which `make lint` checks with vermin.
"""
