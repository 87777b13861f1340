# Cimiento's image: serves by default. Migrate once per release, before the new version serves:
#   docker run --rm --env-file .env cimiento python -m app.cli migrate

FROM python:3.13-slim AS build
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY requirements.txt .
# Hash-locked: an altered or unlisted package stops the build.
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

FROM python:3.13-slim AS api
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/data
RUN useradd --system --uid 10001 --no-create-home cimiento && install -d -m 0700 -o cimiento /data /backups
WORKDIR /srv
COPY --from=build /venv /venv
COPY alembic.ini ./
COPY alembic ./alembic
COPY app ./app
USER 10001
VOLUME /data
EXPOSE 8000
# Uvicorn and Celery finish what they began.
STOPSIGNAL SIGTERM
# By Python, as the image has no curl. Touches no database: a slow one is no reason to restart.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]
CMD ["python", "-m", "app.cli", "serve"]

# With the programs that `backup` and `restore` call: `docker build --target tools .`
FROM api AS tools
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends mariadb-client postgresql-client \
    && rm -rf /var/lib/apt/lists/*
USER 10001

# The last stage is what a build without a target makes.
FROM api
