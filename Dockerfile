# internvl serve in a container: docker build -t internvl . && docker run -p 8000:8000 -e INTERNVL_API_KEY=… internvl org/model
FROM node:22 AS build
ENV INTERNVL_CACHE=/app/engine
WORKDIR /src
COPY . .
RUN npm ci --ignore-scripts && mkdir -p /app && npm pack --pack-destination /app
WORKDIR /app
RUN npm init -y && npm install --no-audit --no-fund --ignore-scripts ./internvl-tfjs-*.tgz node-av@6.1.1 && npx internvl setup --auto

FROM node:22-slim
ENV NODE_ENV=production INTERNVL_CACHE=/app/engine HF_HOME=/models
COPY --from=build /app /app
RUN mkdir -p /models && chown node /models
WORKDIR /app
USER node
EXPOSE 8000
VOLUME /models
HEALTHCHECK --start-period=10m --interval=30s --timeout=5s CMD node -e "fetch('http://127.0.0.1:8000/health').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"
ENTRYPOINT ["node", "node_modules/internvl-tfjs/generation/bin.js", "serve", "--host", "0.0.0.0", "--port", "8000"]
