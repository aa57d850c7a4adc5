import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineStats, EngineTimings, GenerationEngine, Usage } from '../engine/engine-types.js'

/** The numbers of `/metrics`. */
export interface ServerMetrics {
  readonly onRequest: (route: string, status: number, seconds: number) => void
  readonly onAnswer: (usage: Usage, timings: EngineTimings) => void
  readonly text: () => Promise<string>
  readonly contentType: string
}

const seconds = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100]

/** Metrics in Prometheus' format: requests and answers of the server, and the state of its engine. */
export const serverMetrics = (engine: GenerationEngine): ServerMetrics => {
  const registry = new Registry()
  const registers = [registry]
  const requests = new Counter({
    name: 'internvl_http_requests_total',
    help: 'Requests by route and status.',
    labelNames: ['route', 'status'],
    registers
  })
  const durations = new Histogram({
    name: 'internvl_http_request_seconds',
    help: 'Seconds until the answer begins, by route.',
    labelNames: ['route'],
    buckets: seconds,
    registers
  })
  const firstToken = new Histogram({
    name: 'internvl_first_token_seconds',
    help: 'Seconds from a request to its first token.',
    buckets: seconds,
    registers
  })
  const tokenSeconds = new Histogram({
    name: 'internvl_seconds_per_token',
    help: 'Seconds between two tokens of an answer, on average.',
    buckets: [0.003, 0.01, 0.03, 0.1, 0.3, 1],
    registers
  })
  const gauge = (name: string, help: string, value: (stats: EngineStats) => number | undefined) =>
    new Gauge({
      name: `internvl_${name}`,
      help,
      registers,
      collect() {
        this.set(value(engine.stats()) ?? 0)
      }
    })
  gauge('running_requests', 'Requests with the model.', ({ running }) => running)
  gauge('waiting_requests', 'Requests that wait for a row.', ({ waiting }) => waiting)
  gauge('engine_restarts', 'Starts of the engine after a crash.', ({ restarts }) => restarts)
  gauge('engine_ready', '1 if the engine can answer.', ({ state }) => Number(state === 'ready'))
  gauge('prompt_tokens', 'Prompt tokens so far.', ({ tokens }) => tokens.prompt)
  gauge('image_tokens', 'Image tokens of the prompts so far.', ({ tokens }) => tokens.image)
  gauge('reused_tokens', 'Prompt tokens from the prefix cache so far.', ({ tokens }) => tokens.reused)
  gauge('new_tokens', 'Tokens of answers so far.', ({ tokens }) => tokens.new)
  gauge('tensors', 'Tensors beyond those of the model.', ({ process }) => process?.tensors)
  gauge('resident_bytes', 'Resident memory of the process of the model.', ({ process }) => process?.rss)
  return {
    onRequest: (route, status, duration) => {
      requests.inc({ route, status: String(status) })
      durations.observe({ route }, duration)
    },
    onAnswer: ({ newTokens }, { firstToken: first, decode }) => {
      firstToken.observe(first)
      if (newTokens > 1) tokenSeconds.observe(decode / (newTokens - 1))
    },
    text: () => registry.metrics(),
    contentType: registry.contentType
  }
}
