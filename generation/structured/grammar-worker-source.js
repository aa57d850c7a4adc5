// Starts grammar-worker.ts in a checkout, because a thread does not inherit the hooks with which its parent reads TypeScript.
import { tsImport } from 'tsx/esm/api'

await tsImport('./grammar-worker.ts', import.meta.url)
