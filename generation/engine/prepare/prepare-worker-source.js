// Starts prepare-worker.ts in a checkout, because a thread does not inherit the hooks with which its parent reads TypeScript.
import { tsImport } from 'tsx/esm/api'

await tsImport('./prepare-worker.ts', import.meta.url)
