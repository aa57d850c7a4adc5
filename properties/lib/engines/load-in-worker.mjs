// Loads the native engine for the first time of a process in a worker thread; run by worker-settings.test.ts.
import { isMainThread, Worker } from 'node:worker_threads'
import { tsImport } from 'tsx/esm/api'

if (isMainThread) new Worker(new URL(import.meta.url))
else {
  const { selectEngine } = await tsImport('../../../lib/engines/index.ts', import.meta.url)
  const { name } = await selectEngine({ engine: 'native' })
  console.log(name)
}
