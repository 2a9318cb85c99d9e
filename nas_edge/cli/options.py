"""Help texts of options that several commands have."""

from __future__ import annotations

DATA_HELP = "digits, procedural, a folder of class folders, a .npz file, tfrecord:FOLDER, tfds:NAME or coco:FOLDER."
DEVICE_HELP = "Where to measure; may be repeated for devices of one kind. See `nas-edge devices`."
JOINT_HELP = "Also search: deployment (threads, delegate, precision; measured) or accelerator (simulated)."
LATENCY_HELP = (
    "Where latencies of candidates come from: device (default), hybrid, model:FILE, table:FILE, sim:edgetpu, NAME:REST."
)
METHOD_HELP = "one-shot (default), multi-trial or, with --joint accelerator, alternating."
HARDWARE_HELP = "What has to run it, for example edgetpu. See `nas-edge spaces check`."
INIT_HELP = "Start shared weights and trainings from another run, or a file: .npz, .weights.h5, .keras."
EXPORT_PRECISION_HELP = "What to deliver; auto: the fastest here that keeps the accuracy budget."
QUANTIZATION_HELP = (
    "aware trains with the roundings of int8; auto does so only where post-training costs more accuracy than "
    "export.accuracy_budget (default 0.01)."
)
TASK_HELP = (
    "What networks are for: classification (default), multi-label, regression, embedding, segmentation, detection, "
    "keyword-spotting."
)
RESUME_HELP = "Continue a stopped run."
DELEGATE_HELP = (
    "cpu, none; on phones also gpu, nnapi (legacy), external:LIBRARY[,KEY=VALUE...]. These must take every operator; "
    "with gpu+cpu, ... the CPU takes the rest."
)
CORES_HELP = (
    "CPUs to run on; also ids, 4-7 or 4,5. A mask begins with 0x. Default: a phone's big ones, this machine's last if "
    "one is spare."
)
COOL_HELP = "Refuse a phone that does not say that it is cool."
CHARGED_HELP = "Refuse a phone that is not plugged in and well charged."
