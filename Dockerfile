# Any image with Python 3.11 or newer and its venv module will do as a base.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY requirements/base.txt /requirements/base.txt
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements/base.txt

FROM ${BASE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=aos_project.settings.production \
    AOS_DATA_DIR=/data \
    AOS_STATIC_ROOT=/app/static
# A number, so that an orchestrator can see that it is not root.
RUN groupadd --system --gid 10001 aos \
    && useradd --system --uid 10001 --gid aos --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aos \
    && install --directory --owner aos --group aos --mode 0700 /data /egress
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY . .
# Development settings only to collect files: the image itself holds no secret to be found.
RUN DJANGO_SETTINGS_MODULE=aos_project.settings.dev python manage.py collectstatic --no-input --verbosity 0
USER 10001:10001
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["python", "-m", "launcher.process"]
CMD ["web"]
