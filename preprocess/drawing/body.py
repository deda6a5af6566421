"""A person's body: the joints of a pose by forward kinematics, and the dressed solids around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from preprocess.drawing.clothing import draw_cut
from preprocess.drawing.paint import Floats
from preprocess.drawing.pose import Pose, turn, vector
from preprocess.drawing.solid import Solid, capsule, ellipsoid, tube


class Body:
    """One person of drawn build and clothes, in a pose.

    Attributes:
        solids: its parts, in the order in which they were put on; `depth` tells which hides which.
        joints: each of COCO's keypoints (3,), in body units along the viewer's axes.
        facing: cosine of the angle between the face and the viewer.
        light: (3,) where the lit area of a part lies, from its centre, in shares of its half width.
    """

    def __init__(self, rng: np.random.Generator, pose: Pose) -> None:
        self.rng, self.pose = rng, pose
        self.girth = rng.uniform(0.85, 1.3)
        self.shoulder, self.hip = rng.uniform(0.104, 0.128), rng.uniform(0.050, 0.066)
        self.child = rng.uniform(1.2, 1.5) if rng.random() < 0.15 else rng.uniform(0.96, 1.12)
        light = rng.uniform(-1, 1, 2)
        self.light = vector(0.3 * light[0], 0.25 + 0.1 * light[1], 0)
        self.solids: list[Solid] = []
        self.joints: dict[str, Floats] = {}
        self.cut = draw_cut(rng)
        self._trunk()
        for index, (label, side) in enumerate((("left", 1), ("right", -1))):
            self._leg(label, side, pose.legs[index], self.girth)
            self._arm(label, side, pose.arms[index], self.girth)
        self._skull()

    def _trunk(self) -> None:
        add, g, s, t, p = self.solids.append, self.girth, self.shoulder, self.pose.torso, self.pose.pelvis
        up = t @ vector(0, 1, 0)
        zero = vector(0, 0, 0)
        belt = (0.045 * up, t, 0.088 * g, 0.070 * g)
        hips = [(p @ vector(0, -0.045, 0), p, 0.072 * g, 0.06 * g), (zero, p, 0.092 * g, 0.076 * g), belt]
        add(tube("bottom:hips", hips, 0.004))
        heights = ((0.03, 0.090, 0.072), (0.12, 0.080, 0.066), (0.21, 0.78 * s / g + 0.012, 0.076),
                   (0.275, 0.95 * s / g, 0.064), (0.305, 0.80 * s / g, 0.052), (0.325, 0.042, 0.042))  # fmt: skip
        add(tube("top:torso", [(np.multiply(h, up), t, w * g, d * g) for h, w, d in heights], 0.006))
        if self.cut.skirt:
            hem = self.rng.uniform(0.14, 0.42)
            knees = [self._hip_joint(side) + hem * self._thigh(side)[0] for side in (1, -1)]
            across = (self._thigh(1)[1] + self._thigh(-1)[1]) / 2  # the thighs, also when they are raised
            rings = [
                belt,
                (zero, p, 0.096 * g, 0.08 * g),
                (0.55 * (knees[0] + knees[1]) / 2, (p + across) / 2, 0.132 * g, 0.095 * g),
            ]
            spread = 0.5 * float(np.linalg.norm(knees[0] - knees[1])) + 0.06
            rings.append(((knees[0] + knees[1]) / 2, across, spread * g, 0.09 * g))
            add(tube("bottom:skirt", rings, 0.068))
        base = 0.30 * up
        self.neck = base + self.pose.head @ vector(0, 0.065, 0.008)
        add(capsule("skin:neck", base, self.neck, (0.034 * g, 0.031 * g), 0.012))

    def _hip_joint(self, side: int) -> Floats:
        return np.asarray(self.pose.pelvis @ vector(side * self.hip * self.girth, -0.01, 0), np.float32)

    def _thigh(self, side: int) -> tuple[Floats, Floats]:
        """Direction of the thigh (3,) and its frame (3, 3)."""
        forward, outward, _ = self.pose.legs[0 if side == 1 else 1]
        frame = self.pose.pelvis @ turn(2, side * outward) @ turn(0, -forward)
        return frame @ vector(0, -1, 0), frame

    def _leg(self, label: str, side: int, angles: Sequence[float], g: float) -> None:
        add = self.solids.append
        hip, (direction, frame) = self._hip_joint(side), self._thigh(side)
        length = 0.245 / self.child**0.3
        knee = hip + length * direction
        shin = frame @ turn(0, angles[2])
        ankle = knee + length * (shin @ vector(0, -1, 0))
        upper = "skin" if self.cut.skirt and not self.cut.shorts else "bottom"
        lower = "skin" if self.cut.skirt or self.cut.shorts else "bottom"
        loose = 1.12 if lower == "bottom" else 1.0
        add(capsule(f"{upper}:thigh_{label}", hip, knee, (0.066 * g, 0.046 * g)))
        calf = knee + 0.3 * (ankle - knee) - 0.008 * (shin @ vector(0, 0, 1))
        add(capsule(f"{lower}:shin_{label}", calf, ankle, (0.043 * g * loose, 0.026 * g * loose), -0.004))
        add(capsule(f"{lower}:shin_{label}", knee, calf, (0.044 * g, 0.043 * g * loose), -0.003))
        foot = shin @ turn(0, 8)
        heel, toe = ankle + foot @ vector(0, -0.02, -0.012), ankle + foot @ vector(0, -0.034, 0.088)
        add(capsule(f"shoe:foot_{label}", heel, toe, (0.031, 0.023), 0.006))
        self.joints |= {f"{label}_hip": hip, f"{label}_knee": knee, f"{label}_ankle": ankle}

    def _arm(self, label: str, side: int, angles: Sequence[float], g: float) -> None:
        add = self.solids.append
        forward, outward, twist, bend = angles
        shoulder = self.pose.torso @ vector(side * self.shoulder, 0.275, 0)
        frame = self.pose.torso @ turn(2, side * outward) @ turn(0, -forward)
        length = 0.172 / self.child**0.3
        elbow = shoulder + length * (frame @ vector(0, -1, 0))
        lower = frame @ turn(1, -side * twist) @ turn(0, -bend)
        wrist = elbow + 0.9 * length * (lower @ vector(0, -1, 0))
        # Seen from the front an arm hangs beside the trunk, not in it, so it is painted later unless it is behind.
        bias = 0.075 if (shoulder[2] + wrist[2]) / 2 > -0.055 else 0.0
        sleeve = self.cut.sleeve
        upper, fore = "skin" if sleeve < 1 else "top", "top" if sleeve > 1 else "skin"
        add(capsule(f"{upper}:upper_{label}", shoulder, elbow, (0.040 * g, 0.032 * g), bias))
        if 0 < sleeve < 1:
            hem = shoulder + sleeve * (elbow - shoulder)
            add(capsule(f"top:upper_{label}", shoulder, hem, (0.045 * g, 0.043 * g), bias + 0.001))
        add(capsule(f"{fore}:fore_{label}", elbow, wrist, (0.032 * g, 0.022 * g), bias + 0.012))
        hand = lower @ vector(0, -0.038, 0)
        add(ellipsoid(f"skin:hand_{label}", wrist + hand, lower, (0.020, 0.044, 0.026), bias + 0.010))
        self.joints |= {f"{label}_shoulder": shoulder, f"{label}_elbow": elbow, f"{label}_wrist": wrist}

    def _skull(self) -> None:
        add, rng, c, frame = self.solids.append, self.rng, self.child, self.pose.head
        centre = self.neck + frame @ vector(0, 0.052 * c, 0.006)

        def at(x: float, y: float, z: float) -> Floats:
            return np.asarray(centre + c * (frame @ vector(x, y, z)), np.float32)

        add(ellipsoid("skin:head", at(0, 0, 0), frame, (0.054 * c, 0.074 * c, 0.064 * c), 0.03))
        style = rng.choice(["bald", "short", "long", "bun", "hat"], p=[0.06, 0.42, 0.26, 0.1, 0.16])
        if style != "bald":
            add(ellipsoid("hair:hair", at(0, 0.018, -0.016), frame, (0.060 * c, 0.068 * c, 0.062 * c), 0.03))
            add(ellipsoid("hair:hair", at(0, 0.052, 0.010), frame, (0.054 * c, 0.030 * c, 0.056 * c), 0.045))
        if style == "long":
            drop = rng.uniform(0.06, 0.15)
            radii = (0.060 * c, 0.05 * c + drop / 2, 0.036 * c)
            add(ellipsoid("hair:hair", at(0, -drop / 2, -0.036), frame, radii, 0.03))
        if style == "bun":
            add(ellipsoid("hair:hair", at(0, 0.078, -0.03), frame, (0.028 * c, 0.026 * c, 0.028 * c), 0.03))
        if style == "hat":
            add(ellipsoid("hat:hair", at(0, 0.055, -0.004), frame, (0.063 * c, 0.042 * c, 0.068 * c), 0.05))
            add(ellipsoid("hat:hair", at(0, 0.040, 0.022), frame, (0.066 * c, 0.008 * c, 0.082 * c), 0.052))
        face = {"nose": (0.0, -0.010, 0.068), "left_eye": (0.022, 0.010, 0.056), "right_eye": (-0.022, 0.010, 0.056),
                "left_ear": (0.054, 0.0, -0.004), "right_ear": (-0.054, 0.0, -0.004)}  # fmt: skip
        self.joints |= {name: at(*place) for name, place in face.items()}
        self.facing = float(frame[2, 2])
        for name, place in face.items():
            if name.endswith("ear"):
                add(ellipsoid("skin:face", at(*place), frame, (0.009 * c, 0.018 * c, 0.013 * c), 0.034))
            elif self.facing > 0.1:
                material, (x, y, z) = (
                    ("nose", (0.008, 0.016, 0.012)) if name == "nose" else ("eye", (0.009, 0.006, 0.006))
                )
                add(ellipsoid(f"{material}:face", at(*place), frame, (x * c, y * c, z * c), 0.036))
        if self.facing > 0.1:
            add(ellipsoid("mouth:face", at(0, -0.040, 0.056), frame, (0.018 * c, 0.005 * c, 0.008 * c), 0.036))
