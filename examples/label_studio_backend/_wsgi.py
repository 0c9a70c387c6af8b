"""Run the backend: `label-studio-ml start .`, `python _wsgi.py`, or `app` in a server of WSGI."""

from label_studio_ml.api import init_app
from model import NameonlyBackend

app = init_app(model_class=NameonlyBackend)

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=9090)
