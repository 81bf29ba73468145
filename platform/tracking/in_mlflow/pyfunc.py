"""A registered version as an MLflow pyfunc (models from code): MLflow keeps this file and runs it where it is loaded.

    model = mlflow.pyfunc.load_model("models:/cpn-quickstart@champion")
    model.predict(pandas.DataFrame({"image": [open("cat.jpg", "rb").read()]}))["mask"][0]

A row in has `image`, the bytes of a JPEG or PNG file, and may have `labels`, the classes in it as 'cat,dog'. A row out
has `mask`, a palette PNG of class indices, of the picture's size, and `classes`, those in it as 'cat,dog'.
Bytes travel in JSON to a server as they do in memory, which paths and arrays do not.
"""

from typing import Any

import mlflow
import pandas


class Masks(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined, unused-ignore]
    """The network of the artifact `checkpoint`. `cpn` comes with the model, so that nothing of ours is installed."""

    def load_context(self, context: Any) -> None:
        """Read the network; `backbone` of the model's configuration allows code that it names as its backbone."""
        from cpn.stages.predictor import load

        self.model = load(context.artifacts["checkpoint"], backbone=(context.model_config or {}).get("backbone"))

    def predict(self, context: Any, model_input: pandas.DataFrame, params: Any = None) -> pandas.DataFrame:
        """Return one mask for each row. Raises InputError for what is no picture, or no class."""
        from cpn.data.voc import encode_mask

        rows = []
        for row in model_input.to_dict("records"):
            labels = row.get("labels")
            named = [name.strip() for name in labels.split(",") if name.strip()] if isinstance(labels, str) else None
            mask = self.model(bytes(row["image"]), named)
            there = [self.model.classes[value - 1] for value in sorted(set(mask.ravel().tolist()) - {0})]
            rows.append({"mask": encode_mask(mask), "classes": ",".join(there)})
        return pandas.DataFrame(rows, columns=["mask", "classes"])


mlflow.models.set_model(Masks())
