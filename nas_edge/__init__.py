"""nas_edge: find, train and ship the most accurate network that meets a latency on your device.

Importing this package is light: TensorFlow is loaded only by the rooms that build, train or convert Keras
models (`networks.keras_model`, `supernet`, `training`, `data`, `export`). Start reading at `pipeline.py`.
"""

__version__ = "0.1.0"
