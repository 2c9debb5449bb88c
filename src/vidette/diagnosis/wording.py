"""What is said of every cause: its name for people, how it comes about, and the repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidette.diagnosis.findings import Family, Finding, Picture, Severity

__all__ = ["CAUSES", "Wording", "new_finding"]


@dataclass(frozen=True)
class Wording:
    """What is said of one cause."""

    family: Family
    title: str
    cause: str
    repair: str


CAUSES: Mapping[str, Wording] = {
    # input
    "frames_identical": Wording(
        "input",
        "The frames of a clip are all the same picture",
        "A camera that is stuck, a reader that gives its first frame again and again, or a buffer filled "
        "with one frame.",
        "Look at the frames that reach the network; open the source again when its picture stands still, and "
        "advance the "
        "reader for every frame.",
    ),
    "black": Wording(
        "input",
        "The pictures are black",
        "A camera without light or with its cap on, a failed decoder, or a buffer that was never filled.",
        "Look at the source itself; check exposure, cable and decoder before anything else.",
    ),
    "covered": Wording(
        "input",
        "The pictures show nothing: one even colour",
        "A covered or fogged lens, a camera turned to a wall, or a test picture.",
        "Clean and free the lens, and look at the source.",
    ),
    "dark": Wording(
        "input",
        "The pictures are darker than in training",
        "Night, short exposure, or a gamma that was applied twice.",
        "More light or exposure; or train with darker pictures (colour augmentation).",
    ),
    "bright": Wording(
        "input",
        "The pictures are brighter than in training",
        "Over-exposure, sun in the picture, or a gamma that was left out.",
        "Less exposure; or train with brighter pictures (colour augmentation).",
    ),
    "low_contrast": Wording(
        "input",
        "The pictures have less contrast than in training",
        "Haze, fog, a dirty lens, or limited-range video read as full range.",
        "Clean the lens, check the range of the decoder (16..235 against 0..255); or train with such pictures.",
    ),
    "blurred": Wording(
        "input",
        "The pictures are more blurred than in training",
        "A lens out of focus, motion blur by long exposure, strong compression, or a small picture enlarged.",
        "Focus, shorten the exposure, raise the bit rate or resolution; or train with blurred pictures.",
    ),
    "noisy": Wording(
        "input",
        "The pictures are noisier than in training",
        "High gain in low light, a poor sensor, or a disturbed transmission.",
        "More light or lower gain, a denoiser before the network; or train with noisy pictures.",
    ),
    "rotated": Wording(
        "input",
        "The pictures are turned",
        "A camera mounted on its side or head, or a rotation mark in the file that the reader ignores.",
        "Turn the pictures before the network, or honour the rotation of the file.",
    ),
    "mirrored": Wording(
        "input",
        "Left and right are exchanged",
        "A front camera that mirrors, or a flip as augmentation although left and right are classes.",
        "Turn mirroring off, or mirror the pictures back.",
    ),
    "aspect": Wording(
        "input",
        "The pictures are squeezed or stretched",
        "Black bars, wide pictures squeezed to a square, or pixels that are not square.",
        "Cut the bars; resize live exactly as in training.",
    ),
    "framing": Wording(
        "input",
        "The pictures show another part of the scene than in training: too near or too far",
        "Another crop, another lens or distance of the camera.",
        "Crop as in training, move or zoom the camera; or train with a random crop.",
    ),
    "colour_order": Wording(
        "input",
        "Red and blue are exchanged",
        "OpenCV gives BGR, most networks were trained on RGB.",
        "Exchange the channels once: frame[..., ::-1], or declare the right channel order.",
    ),
    "value_range": Wording(
        "input",
        "The pixels are in another range than the network was trained on",
        "Dividing by 255 was forgotten or done twice, or 0..1 is mixed up with -1..1.",
        "Give the network the same range as in training, for snapshots and for video alike.",
    ),
    "normalisation_missing": Wording(
        "input",
        "The normalisation of training is missing",
        "Mean and deviation are not applied live, although the network was trained with them.",
        "Subtract the mean and divide by the deviation of training before the network.",
    ),
    "normalisation_doubled": Wording(
        "input",
        "The pixels are normalised once too often",
        "The network normalises by itself, or two steps of the preparation do so.",
        "Take one of the two normalisations away.",
    ),
    "normalisation_of_another_network": Wording(
        "input",
        "The pixels are normalised for another network",
        "Mean and deviation were copied from another model.",
        "Use the mean and deviation of this network's training.",
    ),
    "resize_rule": Wording(
        "input",
        "Pictures come to the network's size in another way than in training",
        "Stretching, cropping and padding were exchanged.",
        "Use the resize rule of training.",
    ),
    "wrong_size": Wording(
        "input",
        "The network is given pictures of another size than in training",
        "A network that takes any size does not complain, but its filters meet things too small or too large.",
        "Resize to the size of training.",
    ),
    # time
    "span": Wording(
        "time",
        "A clip spans another time than in training",
        "Another frame rate or stride: the same number of frames covers more or fewer seconds.",
        "Choose frames by time, so that a clip spans the seconds of training whatever the rate.",
    ),
    "frames_shuffled": Wording(
        "time",
        "The frames are not in the order of time",
        "Files sorted by name as text (10 before 2), a queue with several writers, or B-frames in decoding "
        "order.",
        "Sort frames by presentation time.",
    ),
    "frames_reversed": Wording(
        "time",
        "The frames run backwards",
        "A buffer that puts the newest frame first.",
        "Put the oldest frame first.",
    ),
    "few_distinct_frames": Wording(
        "time",
        "Few frames of a clip differ: most repeat the one before",
        "The source gives fewer frames a second than are asked for, or a slow reader hands out old ones.",
        "Sample at the source's rate over the span of training, and wait for new frames.",
    ),
    "order_not_used": Wording(
        "time",
        "The network does not use the order of frames",
        "It looks at frames one by one and averages, or its part along time is cut off.",
        "Where motion tells the class, train a model of time: cnn_gru, shift or a 3-D CNN.",
    ),
    "state_carried_over": Wording(
        "time",
        "The answer to a clip depends on the clips before it",
        "A recurrent state or a buffer is kept from one video to the next.",
        "Reset the state between videos; pass it in and out instead of keeping it in the model.",
    ),
    "batch_recurrence": Wording(
        "time",
        "The answer to a clip depends on its place among the clips of its batch",
        "A recurrent network runs along the batch instead of along time (batch_first left out).",
        "Give the recurrence its time axis: batch_first=True, or transpose before it.",
    ),
    # model
    "training_mode": Wording(
        "model",
        "The network is in training mode",
        "model.eval() was not called, so dropout or batch statistics are at work.",
        "Call model.eval() (Keras: training=False) before answering.",
    ),
    "weights_not_loaded": Wording(
        "model",
        "The weights are those of a new network: nothing was learnt or loaded",
        "The file of weights was not loaded, or load_state_dict(strict=False) matched no name.",
        "Load the trained weights, strictly, and check the names that do not match.",
    ),
    "weights_partly_loaded": Wording(
        "model",
        "Part of the weights are those of a new network",
        "Names that do not match were left out silently, often a prefix such as 'module.'.",
        "Load strictly; rename what does not match.",
    ),
    "head_random": Wording(
        "model",
        "The last layer was never trained",
        "A new classifier was put on a pretrained network and not trained, or its weights were not saved.",
        "Train the last layer on labelled clips, or load its weights.",
    ),
    "saturated_logits": Wording(
        "model",
        "The scores are so far apart that every probability is 0 or 1",
        "Scores were scaled, a softmax is applied to something huge, or the inputs are far out of range.",
        "Check what multiplies the scores; calibrate the temperature on validation clips.",
    ),
    "collapsed_logits": Wording(
        "model",
        "The scores are the same for every clip",
        "Weights that vanished, a softmax before the last layer, or features that do not depend on the input.",
        "Look at the last layers; train again with a lower learning rate.",
    ),
    "dead_features": Wording(
        "model",
        "The features are dead: nearly all are constant whatever is shown",
        "ReLUs driven below zero by too high a learning rate, or a wrong bias.",
        "Train again with a lower learning rate, or load weights from before they died.",
    ),
    "bias_driven": Wording(
        "model",
        "The answer comes from the bias, not from the clip",
        "The last layer prefers a class by so much that what is shown hardly counts.",
        "Train with class weights or balanced batches; check the bias of the last layer.",
    ),
    "label_map_permuted": Wording(
        "model",
        "The class names are in the wrong order",
        "Names were sorted otherwise than in training, or read from another file.",
        "Save class names with the weights, in the order of the outputs.",
    ),
    "label_map_length": Wording(
        "model",
        "There are not as many class names as scores",
        "The names belong to another model, or a background class was added or left out.",
        "Use the list of names that the model was trained with.",
    ),
    "over_confident": Wording(
        "model",
        "The probabilities are higher than the answers deserve",
        "Networks trained to the end are too sure; the temperature was not fitted or not applied.",
        "Fit a temperature on validation clips, and abstain below a threshold.",
    ),
    "over_fitting": Wording(
        "model",
        "The classifier knows its training clips by heart",
        "Too few clips or too long a training for the size of the network.",
        "More clips and scenes, augmentation, a smaller or pretrained network, early stopping on grouped "
        "validation.",
    ),
    # data
    "class_imbalance": Wording(
        "data",
        "The class that it answers was most of the training set",
        "A rare class costs little when it is ignored.",
        "Balance the batches or the loss, and judge by balanced accuracy.",
    ),
    "train_test_leak": Wording(
        "data",
        "Clips of the source are also in the training set",
        "A random split of clips that were cut from the same recordings.",
        "Split by recording (a group), and score again: this score is too good.",
    ),
    "shortcut": Wording(
        "data",
        "The classifier answers by one place in the picture",
        "A mark, a time stamp or a background that went with the class in training.",
        "Cut or mask that place in training, and collect clips where it does not go with the class.",
    ),
    "unseen_class": Wording(
        "data",
        "The clips show classes that the classifier does not know",
        "The classifier can only answer with the classes of its training.",
        "Train with clips of these classes, or abstain by a threshold.",
    ),
    "domain_shift": Wording(
        "data",
        "The clips are unlike those of training, and no single change of the pictures undoes it",
        "Another place, camera, viewpoint or background than in training.",
        "Collect and label clips from here, and train again or adapt.",
    ),
    "errors_unexplained": Wording(
        "data",
        "The answers are wrong more often than in validation, and no cause was found",
        "The clips differ from those of training in a way that was not tried, or labels are wrong.",
        "Look at the clips answered wrongly; give --reference TRAIN_SOURCE, so that more can be compared.",
    ),
    "weak_classifier": Wording(
        "data",
        "The classifier was never good: its validation clips were answered as badly",
        "Too few or too unlike training clips, a model or input that does not fit, or too short a training.",
        "Look at its curves in the training report; compare models and inputs with 'vidette compare'.",
    ),
    "drift": Wording(
        "data",
        "The pictures change along the stream",
        "The light, the focus or the camera changed while it ran.",
        "Look at the stream from the time named on; watch for drift live.",
    ),
}


def new_finding(
    name: str,
    *evidence: str,
    confidence: float,
    explains: float,
    severity: Severity = "fault",
    title: str | None = None,
    numbers: Mapping[str, float] | None = None,
    pictures: tuple[Picture, ...] = (),
    **more: Any,
) -> Finding:
    """Return a finding in the words of its cause.

    Args:
        name: A key of :data:`CAUSES`.
        evidence: The numbers, in sentences.
        confidence: 0 to 1.
        explains: 0 to 1.
        severity: How bad.
        title: Another title than the cause's own.
        numbers: For programs.
        pictures: What to look at.
        more: Other fields of the finding.
    """
    words = CAUSES[name]
    return Finding(
        name=name,
        family=words.family,
        severity=severity,
        title=title or words.title,
        evidence=evidence,
        cause=words.cause,
        repair=words.repair,
        confidence=confidence,
        explains=explains,
        numbers=dict(numbers or {}),
        pictures=pictures,
        **more,
    )
