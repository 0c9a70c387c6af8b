"""A Label Studio ML backend that labels images with a classifier of nameonly.

The classifier runs in `nameonly serve`, which this asks over HTTP; neither torch nor nameonly is
needed here. Works with label-studio-ml 1.0.9 and 2.
"""

import inspect
import logging
import os
from pathlib import Path

import requests
from label_studio_ml.model import LabelStudioMLBase

SERVER = os.environ.get("NAMEONLY_URL", "http://127.0.0.1:8000")
# of a request; `nameonly serve --max-images` takes 64
IMAGES_AT_ONCE = 16
logger = logging.getLogger(__name__)


def folded(name):
    """Return the form in which a class of nameonly and a choice of the project are compared."""
    return " ".join(name.replace("_", " ").split()).casefold()


class NameonlyBackend(LabelStudioMLBase):
    """Pre-labels the images of a project that has one ``Choices`` for one ``Image``."""

    def predict(self, tasks, context=None, **kwargs):
        """Return a prediction for every task.

        It is empty where the image could not be had or read, the classifier abstained, or its
        class is none of the project's choices.
        """
        control, image, key, choices = self._labelling()
        predictions = []
        for start in range(0, len(tasks), IMAGES_AT_ONCE):
            some = tasks[start : start + IMAGES_AT_ONCE]
            for answer in self._ask([self._bytes(task, key) for task in some]):
                choice = choices.get(folded(answer["label"] or ""))
                if answer["error"] or choice is None:
                    logger.warning("no prediction: %s", answer["error"] or answer["label"])
                    predictions.append({"result": [], "score": 0.0})
                    continue
                result = {
                    "from_name": control,
                    "to_name": image,
                    "type": "choices",
                    "score": answer["probability"],
                    "value": {"choices": [choice]},
                }
                predictions.append({"result": [result], "score": answer["probability"]})
        return predictions

    def fit(self, *args, **kwargs):
        """Learn nothing: `nameonly label --given` takes what was corrected."""
        return {}

    def _labelling(self):
        """Return the names of the control and of the image, the image's key, and the choices."""
        for control, found in self.parsed_label_config.items():
            inputs = [one for one in found["inputs"] if one["type"] == "Image"]
            if found["type"] == "Choices" and inputs:
                choices = {folded(name): name for name in found["labels"]}
                return control, found["to_name"][0], inputs[0]["value"], choices
        raise ValueError("expected a labelling setup with <Image> and <Choices>")

    def _bytes(self, task, key):
        """Return a task's image; zero bytes, which the server calls bad, where it is not there."""
        # only the newer of the packages knows tasks, which images in a cloud's storage need
        known = inspect.signature(self.get_local_path).parameters
        options = {"task_id": task.get("id")} if "task_id" in known else {}
        try:
            return Path(self.get_local_path(task["data"][key], **options)).read_bytes()
        except Exception:  # of the network, the storage or the file system
            logger.exception("the image of task %s cannot be had", task.get("id"))
            return b""

    def _ask(self, datas):
        files = [("files", (str(i), data)) for i, data in enumerate(datas)]
        answer = requests.post(f"{SERVER}/predict", params={"top": 1}, files=files, timeout=60)
        if answer.status_code not in (200, 422):  # 422: none of the images could be used
            answer.raise_for_status()
        return answer.json()["images"]
