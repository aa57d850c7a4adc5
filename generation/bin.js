#!/usr/bin/env node
// The command `internvl`. In a checkout the TypeScript source runs through tsx; the published package has its compiled twin.
import { existsSync } from 'node:fs'

const source = new URL('./cli/main.ts', import.meta.url)
if (existsSync(source)) {
  const { tsImport } = await import('tsx/esm/api')
  await tsImport(source.href, import.meta.url)
} else {
  await import('../dist/generation/cli/main.js')
}
