// Builds the page to one HTML file, `dist/index.html` in this folder: `npm run build:page`. A server in a checkout runs this file too.
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'vite'

const folder = fileURLToPath(new URL('.', import.meta.url))
const { output } = await build({
  root: folder,
  configFile: false,
  logLevel: 'warn',
  build: { write: false, target: 'es2022', modulePreload: false, cssCodeSplit: false }
})
const textOf = (pattern) => {
  const file = output.find(({ fileName }) => pattern.test(fileName))
  return String(file.source ?? file.code).trim()
}
const script = textOf(/\.js$/).replaceAll('</script', '<\\/script')
const style = textOf(/\.css$/)
const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

// the page runs its own script alone and connects to its own server alone: text of a model can load nothing
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  'img-src data: blob:',
  'media-src blob:',
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'"
].join('; ')
const licence = readFileSync(new URL('../../../node_modules/preact/LICENSE', import.meta.url), 'utf8').trim()
const html = textOf(/\.html$/)
  .replace(/^<!doctype html>/i, (doctype) => `${doctype}\n<!-- This page contains preact.\n${licence}\n-->`)
  .replace(/<script[^>]*src=[^>]*><\/script>/, () => '')
  .replace(/<link rel="stylesheet"[^>]*>/, () => `<style>${style}</style>`)
  .replace('<meta charset="utf-8" />', (charset) => `${charset}\n    <meta http-equiv="content-security-policy" content="${policy}" />`)
  .replace('</body>', () => `<script type="module">${script}</script>\n  </body>`)

mkdirSync(`${folder}/dist`, { recursive: true })
const partial = `${folder}/dist/index.html.${process.pid}`
writeFileSync(partial, `${html}\n`)
renameSync(partial, `${folder}/dist/index.html`)
