FROM golang:1.26-alpine AS build
WORKDIR /src
# The modules are a layer of their own: they are downloaded again only when go.mod or go.sum changes.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /rollcall ./app

# Nothing but CA certificates (for TLS to Redis and to a JWKS) and the user nonroot, 65532, who runs it.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /rollcall /rollcall
ENV ROLLCALL_ADDR=0.0.0.0:8080
EXPOSE 8080
# No HEALTHCHECK: it would run a program inside, and there is none but the server. Let the load balancer ask GET /readyz, which fails
# while an instance drains and so takes it out in time; and an orchestrator GET /healthz, to know when to kill.
#
# The exec form makes the server process 1, so that SIGTERM reaches it and it drains. Allow it --drain (10s) and some seconds more.
ENTRYPOINT ["/rollcall"]
