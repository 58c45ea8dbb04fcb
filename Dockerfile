# Two stages: a static binary (no cgo), then an image with nothing else but certificates and a user.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /leat ./cmd/leat \
 && mkdir -p /data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /leat /usr/local/bin/leat
COPY --from=build --chown=65532:65532 /data /var/lib/leat
VOLUME /var/lib/leat
EXPOSE 7070
# `leat run` stops in order on SIGTERM: it finishes or abandons what is in flight and persists the cursors.
STOPSIGNAL SIGTERM
ENTRYPOINT ["leat"]
CMD ["run", "-c", "/etc/leat/leat.yaml"]
