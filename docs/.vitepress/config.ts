import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitepress'

const decisions = fileURLToPath(new URL('../decisions', import.meta.url))

/** Sidebar entries of the decisions, from their first headings. */
const decisionPages = readdirSync(decisions)
  .filter((name) => /^\d{4}-.*\.md$/.test(name))
  .sort()
  .map((name) => {
    const title = /^# (.*)$/m.exec(readFileSync(`${decisions}/${name}`, 'utf8'))?.[1] ?? name
    return { text: title, link: `/decisions/${name.replace(/\.md$/, '')}` }
  })

const guide = [
  { text: 'Quick start', link: '/quick-start' },
  { text: 'Coming from Transformers', link: '/transformers' },
  { text: 'Checkpoints', link: '/checkpoints' },
  { text: 'Precision and memory', link: '/precision' },
  { text: 'Images and videos', link: '/media' },
  { text: 'Many requests at once', link: '/many-requests' },
  { text: 'Serving', link: '/serving' },
  { text: 'Many machines', link: '/many-machines' },
  { text: 'Data format', link: '/data-format' },
  { text: 'Evaluation', link: '/evaluation' },
  { text: 'Fine-tuning', link: '/fine-tuning' },
  { text: 'Assembling a model', link: '/assembling' },
  { text: 'Research', link: '/research' },
  { text: 'Troubleshooting', link: '/troubleshooting' }
]
const reference = [
  { text: 'Engines and platforms', link: '/engines' },
  { text: 'Performance', link: '/performance' },
  { text: 'Architecture', link: '/architecture' },
  { text: 'Promises and tests', link: '/promises' },
  { text: 'Adding a model', link: '/extending' },
  { text: 'Dependencies', link: '/dependencies' },
  { text: 'Glossary', link: '/glossary' }
]
const packages = ['root', 'lib', 'models', 'processors', 'generation', 'train', 'transformers', 'server', 'jobs', 'ai-sdk'].map(
  (name) => ({
    text: name === 'root' ? 'internvl-tfjs' : `internvl-tfjs/${name}`,
    link: `/packages/${name}`
  })
)

// Dead links fail the build (VitePress' default), links into the API pages too: TypeDoc writes them to docs/public/api first.
export default defineConfig({
  title: 'internvl-tfjs',
  description: 'InternVL, a vision-language model, in TypeScript',
  cleanUrls: true,
  themeConfig: {
    search: { provider: 'local' },
    nav: [
      { text: 'Guide', link: '/quick-start' },
      { text: 'Packages', link: '/packages/root' },
      { text: 'API', link: '/api/index.html', target: '_self' },
      { text: 'Decisions', link: '/decisions/' }
    ],
    sidebar: [
      { text: 'Guide', items: guide },
      { text: 'Reference', items: [...reference, { text: 'API', link: '/api/index.html', target: '_self' }] },
      { text: 'Packages', items: packages },
      { text: 'Decisions', collapsed: true, items: [{ text: 'Overview', link: '/decisions/' }, ...decisionPages] }
    ]
  }
})
