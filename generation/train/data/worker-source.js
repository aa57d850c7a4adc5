// worker.ts in a checkout: a thread does not inherit the hooks that let its parent read TypeScript.
import { tsImport } from 'tsx/esm/api'

await tsImport('./worker.ts', import.meta.url)
