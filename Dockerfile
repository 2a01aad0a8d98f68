# The server, from a wheel in dist/ (`make wheel`, or a release's). PYTHON must be one that the wheel is for.
#   docker build --build-arg PYTHON=3.11 -t outrider .
#   docker run --rm -p 8000:8000 -v "$PWD/models:/models:ro" outrider /models/model.gguf
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# The version is that of the wheel; pip picks the one for this Python and processor, or fails.
# hadolint ignore=DL3013
RUN --mount=type=bind,source=dist,target=/dist \
    pip install --no-cache-dir --no-index --no-deps --find-links /dist outrider \
    && pip install --no-cache-dir --only-binary :all: "outrider[serve]"

# The folder for models from the hub is made here so that a volume mounted there belongs to the user.
RUN useradd --create-home --uid 1000 outrider \
    && mkdir -p /home/outrider/.cache/huggingface \
    && chown -R outrider:outrider /home/outrider/.cache
USER 1000
WORKDIR /home/outrider

EXPOSE 8000
# Loading may take minutes: until then a failing check does not count.
HEALTHCHECK --start-period=10m --interval=15s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]

ENTRYPOINT ["outrider", "serve", "--host", "0.0.0.0", "--port", "8000"]
