// Times llama.cpp through node-llama-cpp (npm, prebuilt, CPU) and prints one JSON line with the keys of `npm run bench`:
//   node bench_llamacpp.mjs FOLDER_OF_NODE_MODULES FILE.gguf NAME PROMPT_TOKENS NEW_TOKENS RUNS THREADS
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules, file, dtype, prompt, newTokens, runs, threads] = process.argv.slice(2)
const { getLlama } = await import(pathToFileURL(join(modules, 'node-llama-cpp', 'dist', 'index.js')).href)
const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', skipDownload: true })
const start0 = performance.now()
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
const load = (performance.now() - start0) / 1000
const context = await model.createContext({ contextSize: 4096, threads: Number(threads) })
const samples = { load_s: [load], prefill_s: [], decode_tokens_per_s: [] }
for (let run = 0; run < Number(runs); run++) {
  const sequence = context.getSequence()
  const tokens = Array.from({ length: Number(prompt) }, (_, i) => (i * 37 + run) % 600)
  const start = performance.now()
  let [first, count] = [0, 0]
  for await (const _ of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
    if (++count === 1) first = performance.now()
    if (count > Number(newTokens)) break
  }
  samples.prefill_s.push((first - start) / 1000)
  samples.decode_tokens_per_s.push((count - 1) / ((performance.now() - first) / 1000))
  sequence.dispose()
}
const peak = process.resourceUsage().maxRSS / 1024
console.log(JSON.stringify({ engine: 'llama.cpp', dtype, tokens: Number(prompt), samples: { ...samples, peak_rss_mb: [peak] } }))
process.exit(0) // threads of llama.cpp would keep the process alive
