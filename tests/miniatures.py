"""Benchmark data sets in miniature: a few images each, in the layout that is published.

Every image is one colour and no two are the same, so that a test can tell from the pixels which
image it has before it, whatever its file is called.
"""

import gzip
import io
import json
import struct
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

TRAIN, TEST = "train", "test"


class Miniature:
    """A data set's folder under construction, and what a reader should find in it."""

    def __init__(self, root):
        self.root = root
        self.classes = []
        self.truth = defaultdict(dict)
        self.n = 0

    def colour(self, name, *splits):
        """Return the next image's colour, and note its class name and splits."""
        self.n += 1
        for split in splits:
            self.truth[split][self.n] = name
        if splits and name not in self.classes:
            self.classes.append(name)
        return self.n

    def image(self, path, name, *splits):
        """Write an image file; its place does not say what its colour says."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (self.colour(name, *splits), 0, 9)).save(place, "PNG")

    def text(self, path, *lines):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def mat(self, path, **arrays):
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        savemat(place, arrays)


def pixels(m, name, split, side, planes):
    """Return raw bytes of an image: a grey plane, or red, green and blue ones."""
    values = (m.colour(name, split), 0, 9)[:planes]
    return b"".join(bytes([value]) * side**2 for value in values)


def coop(m, file, images, folders, ending=".jpg"):
    """Write a CoOp split file: two training, one validation, one test image a class."""
    split = {"train": [], "val": [], "test": []}
    for label, (folder, name) in enumerate(folders):
        readable = name.replace("_", " ")
        for i, side in enumerate(("train", "train", "val", "test")):
            path = f"{folder}/{label}_{i}{ending}" if folder else f"{label}_{i}{ending}"
            sides = () if side == "val" else (side,)
            m.image(f"{images}/{path}" if images else path, readable, *sides)
            split[side].append([path, label, name])
    m.text(file, json.dumps(split))


def caltech101(m):
    for folder, name in (
        ("Faces_easy", "cropped face"),
        ("airplanes", "airplane"),
        ("water_lilly", "water lily"),
        ("windsor_chair", "windsor chair"),
    ):
        for i in range(5):
            m.image(f"caltech-101/101_ObjectCategories/{folder}/image_{i:04d}.jpg", name, "drawn")
    m.image("caltech-101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg", "clutter")


def caltech101_coop(m):
    folders = [("Faces", "face"), ("accordion", "accordion"), ("yin_yang", "yin_yang")]
    coop(m, "split_zhou_Caltech101.json", "101_ObjectCategories", folders)


def cifar10(m):
    names = ("airplane", "dog", "truck", "dog")
    for split, label_type in ((TRAIN, pa.string()), (TEST, pa.int64())):
        cells, labels = [], []
        for name in names[: 4 if split == TRAIN else 2]:
            buffer = io.BytesIO()
            Image.new("RGB", (4, 4), (m.colour(name, split), 0, 9)).save(buffer, "PNG")
            cells.append(buffer.getvalue())
            labels.append(name if split == TRAIN else {"airplane": 0, "dog": 5}[name])
        column = pa.array(labels, label_type)
        if split == TRAIN:
            images, column = pa.array(cells), column.dictionary_encode()
        else:
            images = pa.array([{"bytes": cell, "path": None} for cell in cells])
        pq.write_table(
            pa.table({"image": images, "label": column}), m.root / f"cifar10_{split}.parquet"
        )


def cifar10_binary(m):
    folder = m.root / "cifar-10-batches-bin"
    folder.mkdir()
    for i in range(1, 6):
        record = bytes([9]) + pixels(m, "truck", TRAIN, 32, 3)
        other = bytes([i]) + pixels(m, CIFAR10[i], TRAIN, 32, 3)
        (folder / f"data_batch_{i}.bin").write_bytes(record + other)
    (folder / "test_batch.bin").write_bytes(bytes([3]) + pixels(m, "cat", TEST, 32, 3))


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar100(m):
    m.text("cifar-100-binary/fine_label_names.txt", "apple", "aquarium_fish", "baby")
    for file, labels in (("train", (1, 0, 2, 1)), ("test", (2, 1))):
        names = ["apple", "aquarium fish", "baby"]
        records = [bytes([17, i]) + pixels(m, names[i], file, 32, 3) for i in labels]
        (m.root / f"cifar-100-binary/{file}.bin").write_bytes(b"".join(records))
    m.classes = names


def cub200(m):
    birds = ("001.Black_footed_Albatross", "012.Yellow_headed_Blackbird")
    paths, labels, split = [], [], []
    for label, bird in ((12, birds[1]), (1, birds[0])):
        name = {1: "Black footed Albatross", 12: "Yellow headed Blackbird"}[label]
        for side in (TEST, TRAIN, TRAIN):
            path = f"{bird}/{bird[4:]}_00{len(paths)}_796.jpg"
            m.image(f"CUB_200_2011/images/{path}", name, side)
            paths.append(f"{len(paths) + 1} {path}")
            labels.append(f"{len(paths)} {label}")
            split.append(f"{len(paths)} {int(side == TRAIN)}")
    m.text("CUB_200_2011/images.txt", *paths)
    m.text("CUB_200_2011/image_class_labels.txt", *reversed(labels))
    m.text("CUB_200_2011/train_test_split.txt", *split)
    m.text("CUB_200_2011/classes.txt", f"1 {birds[0]}", f"12 {birds[1]}")
    m.classes.sort()


def dtd(m):
    lists = {"train1": [], "val1": [], "test1": []}
    for texture in ("banded", "polka-dotted"):
        for i, split in enumerate(("train1", "val1", "test1", "train1")):
            path = f"{texture}/{texture}_{i:04d}.jpg"
            m.image(f"dtd/images/{path}", texture, TEST if split == "test1" else TRAIN)
            lists[split].append(path)
    for split, lines in lists.items():
        m.text(f"dtd/labels/{split}.txt", *lines)


def dtd_coop(m):
    folders = [("banded", "banded"), ("polka-dotted", "polka-dotted")]
    coop(m, "split_zhou_DescribableTextures.json", "images", folders)


LAND = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}


def eurosat(m, top="EuroSAT_RGB/"):
    for folder, name in LAND.items():
        for i in range(1, 6):
            m.image(f"{top}{folder}/{folder}_{i}.jpg", name, "drawn")


def eurosat_as_published(m):
    eurosat(m, "2750/")


def eurosat_elevater(m):
    lines = []
    for label, (folder, name) in enumerate(LAND.items()):
        m.image(f"{folder}/{folder}_1.jpg", name, TRAIN)
        m.image(f"{folder}/{folder}_2.jpg", name, TRAIN, TEST)
        lines.append(f"test.zip@{folder}/{folder}_2.jpg {label}")
    m.text("test.txt", *lines)


def eurosat_coop(m):
    folders = [("AnnualCrop", "Annual Crop Land"), ("SeaLake", "Sea or Lake")]
    coop(m, "split_zhou_EuroSAT.json", "2750", folders)


def fgvc_aircraft(m):
    top = "fgvc-aircraft-2013b/data"
    lists = {"trainval": [], "test": []}
    for i, (variant, split) in enumerate(
        (v, s)
        for v in ("CRJ-200", "Cessna 172", "F/A-18")
        for s in ("trainval", "test", "trainval")
    ):
        m.image(f"{top}/images/10{i:05d}.jpg", variant, TEST if split == "test" else TRAIN)
        lists[split].append(f"10{i:05d} {variant}")
    for split, lines in lists.items():
        m.text(f"{top}/images_variant_{split}.txt", *lines)
    m.text(f"{top}/variants.txt", "CRJ-200", "Cessna 172", "F/A-18")
    m.classes.sort(key=str.casefold)


def flowers102(m):
    names = {1: "pink primrose", 2: "hard-leaved pocket orchid", 102: "blackberry lily"}
    labels = [102, 1, 2, 1, 102, 2, 1]
    splits = {"trnid": [1, 2, 6], "valid": [4], "tstid": [7, 3, 5]}
    for i, label in enumerate(labels, 1):
        m.image(f"jpg/image_{i:05d}.jpg", names[label], TEST if i in splits["tstid"] else TRAIN)
    m.mat("imagelabels.mat", labels=np.array([labels], np.uint8))
    m.mat("setid.mat", **{name: np.array([ids], np.uint16) for name, ids in splits.items()})


def flowers102_coop(m):
    folders = [("", "pink primrose"), ("", "hard-leaved pocket orchid")]
    coop(m, "split_zhou_OxfordFlowers.json", "jpg", folders)


def food101(m):
    lists = {TRAIN: [], TEST: []}
    for dish in ("apple_pie", "beef_tartare"):
        for i, split in enumerate((TRAIN, TEST, TRAIN)):
            m.image(f"food-101/images/{dish}/10{i}.jpg", dish.replace("_", " "), split)
            lists[split].append(f"{dish}/10{i}")
    for split, lines in lists.items():
        m.text(f"food-101/meta/{split}.txt", *lines)
    m.text("food-101/meta/classes.txt", "apple_pie", "beef_tartare")


def food101_coop(m):
    coop(
        m, "split_zhou_Food101.json", "images", [("apple_pie", "apple_pie"), ("waffles", "waffles")]
    )


WORDS = {  # sorted ids; three pairs of ImageNet's classes share a first synonym
    "n01440764": ("tench, Tinca tinca", "tench"),
    "n02012849": ("crane", "crane bird"),
    "n02113186": ("Cardigan, Cardigan Welsh corgi", "Cardigan Welsh corgi"),
    "n02963159": ("cardigan", "cardigan"),
    "n03126707": ("crane", "construction crane"),
    "n03710637": ("maillot", "maillot"),
    "n03710721": ("maillot, tank suit", "tank suit"),
}


def synsets(m, path="LOC_synset_mapping.txt"):
    m.text(path, *(f"{wnid} {words}" for wnid, (words, _) in WORDS.items()))


def imagenet(m):
    for wnid, (_, name) in WORDS.items():
        m.image(f"images/train/{wnid}/{wnid}_1.JPEG", name, TRAIN)
        m.image(f"images/train/{wnid}/{wnid}_2.JPEG", name, TRAIN)
        m.image(f"images/val/{wnid}/ILSVRC2012_val_{m.n:08d}.JPEG", name, TEST)
    synsets(m)


def imagenet_v2(m):
    for i, (_, name) in enumerate(WORDS.values()):
        m.image(f"imagenetv2-matched-frequency-format-val/{i}/ab{i}.jpeg", name, TEST)
    synsets(m)


def imagenet_sketch(m):
    for wnid, (_, name) in WORDS.items():
        m.image(f"sketch/{wnid}/sketch_{m.n}.JPEG", name, TEST)
    synsets(m)


def imagenet_a(m, folder="imagenet-a", word=" "):
    names = {"n01498041": "stingray", "n01770393": "scorpion", "n02007558": f"red{word}flamingo"}
    for wnid, name in names.items():
        m.image(f"{folder}/{wnid}/0.003_{m.n}.jpg", name.replace("_", " "), TEST)
    lines = [f"{wnid} {name} " for wnid, name in names.items()]
    m.text(
        f"{folder}/README.txt", "There are some classes we consider.", "", *lines, "n09999999 none"
    )


def imagenet_r(m):
    imagenet_a(m, "imagenet-r", "_")


def mnist(m):
    folder = m.root / "MNIST/raw"
    folder.mkdir(parents=True)
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for split, labels in ((TRAIN, (5, 0, 4)), (TEST, (7, 2))):
        raw = b"".join(pixels(m, words[i], split, 28, 1) for i in labels)
        images = struct.pack(">4I", 0x803, len(labels), 28, 28) + raw
        named = struct.pack(">2I", 0x801, len(labels)) + bytes(labels)
        if split == TRAIN:
            (folder / "train-images-idx3-ubyte").write_bytes(images)
            (folder / "train-labels.idx1-ubyte").write_bytes(named)
        else:
            (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
            (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(named))
    m.classes = words


def oxford_pets(m):
    lists = {"trainval": [], "test": []}
    for label, breed in enumerate(("Abyssinian", "american_bulldog", "Bengal"), 1):
        for i, split in enumerate(("trainval", "test", "trainval")):
            name = breed.replace("_", " ")
            m.image(f"images/{breed}_{i}0.jpg", name, TEST if split == "test" else TRAIN)
            lists[split].append(f"{breed}_{i}0 {label} 1 {label}")
    for split, lines in lists.items():
        m.text(f"annotations/{split}.txt", *lines)


def oxford_pets_coop(m):
    folders = [("", "abyssinian"), ("", "american_bulldog")]
    coop(m, "split_zhou_OxfordPets.json", "images", folders)


def resisc45(m):
    for scene in ("airplane", "railway", "railway_station"):
        for i in range(1, 6):
            name = scene.replace("_", " ")
            m.image(f"NWPU-RESISC45/{scene}/{scene}_{i:03d}.jpg", name, "drawn")


def resisc45_elevater(m):
    lists = {"train": [], "val": [], "test": []}
    for scene in ("airplane", "railway_station"):
        for i, split in enumerate(("train", "val", "test")):
            path = f"{scene}/{scene}_{i:03d}.jpg"
            m.image(path, scene.replace("_", " "), TEST if split == "test" else TRAIN)
            lists[split].append({"id": i, "file_name": f"{split}.zip@{path}"})
    for split, images in lists.items():
        m.text(f"{split}.json", json.dumps({"images": images, "categories": []}))


def stanford_cars(m):
    cars = ["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]
    dtype = [("bbox_x1", object), ("class", object), ("fname", object)]
    for split, path in (
        (TRAIN, "devkit/cars_train_annos.mat"),
        (TEST, "cars_test_annos_withlabels.mat"),
    ):
        records = []
        for i, label in enumerate((2, 1, 2)[: 3 if split == TRAIN else 1], 1):
            m.image(f"cars_{split}/{i:05d}.jpg", cars[label - 1], split)
            records.append((39, label, f"{i:05d}.jpg"))
        m.mat(path, annotations=np.array([records], dtype))
    m.mat("devkit/cars_meta.mat", class_names=np.array([cars], object))
    m.classes = cars


def stanford_cars_coop(m):
    folders = [("cars_train", "2000 AM General Hummer SUV"), ("cars_train", "2012 Acura TL Sedan")]
    coop(m, "split_zhou_StanfordCars.json", "", folders)


def sun397(m):
    places = {
        "/a/abbey": "abbey",
        "/a/apartment_building/outdoor": "outdoor apartment building",
        "/z/zoo": "zoo",
    }
    lists = {"Training": [], "Testing": []}
    for place, name in places.items():
        for i, split in enumerate(("Training", "Testing")):
            m.image(f"SUN397{place}/sun_a{i}.jpg", name, TEST if split == "Testing" else TRAIN)
            lists[split].append(f"{place}/sun_a{i}.jpg")
    for split, lines in lists.items():
        m.text(f"{split}_01.txt", *lines)
    m.text("ClassName.txt", *places)


def sun397_coop(m):
    folders = [("a/abbey", "abbey"), ("a/apse/indoor", "indoor apse")]
    coop(m, "split_zhou_SUN397.json", "SUN397", folders)


def ucf101(m):
    actions = {
        "ApplyEyeMakeup": ("Apply_Eye_Makeup", "ApplyEyeMakeup"),
        "HandstandPushups": ("Handstand_Pushups", "HandStandPushups"),
        "YoYo": ("Yo_Yo", "YoYo"),
    }
    train, test = [], []
    for label, (action, (folder, video)) in enumerate(actions.items(), 1):
        for i, split in enumerate((TRAIN, TEST)):
            path = f"v_{video}_g0{i}_c01"
            m.image(f"UCF-101-midframes/{folder}/{path}.jpg", folder.replace("_", " "), split)
            line = f"{action}/{path}.avi"
            (train if split == TRAIN else test).append(
                f"{line} {label}" if split == TRAIN else line
            )
    m.text("ucfTrainTestlist/classInd.txt", *(f"{i} {a}" for i, a in enumerate(actions, 1)))
    m.text("ucfTrainTestlist/trainlist01.txt", *train)
    m.text("ucfTrainTestlist/testlist01.txt", *test)


def ucf101_coop(m):
    folders = [("Apply_Eye_Makeup", "Apply_Eye_Makeup"), ("Yo_Yo", "Yo_Yo")]
    coop(m, "split_zhou_UCF101.json", "UCF-101-midframes", folders)
