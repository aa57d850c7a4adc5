import type { ChatSettings } from './exchange.js'

type NumberName = Exclude<keyof ChatSettings, 'system'>

const numbers: readonly (readonly [
  name: NumberName,
  label: string,
  attributes: { min: number; max: number; step: number | 'any' }
])[] = [
  ['maxTokens', 'Longest answer, tokens', { min: 1, max: 100_000, step: 1 }],
  ['temperature', 'Temperature (0: most probable)', { min: 0, max: 2, step: 'any' }],
  ['seed', 'Seed', { min: 0, max: 2 ** 31 - 1, step: 1 }],
  ['maxPatches', 'Tiles of an image, at most', { min: 1, max: 64, step: 1 }],
  ['numFrames', 'Frames of a video', { min: 1, max: 128, step: 1 }]
]

interface SettingsViewProps {
  readonly settings: ChatSettings
  readonly onChange: (settings: ChatSettings) => void
}

/** Fields of the settings; an empty field leaves the model's own value. */
export const SettingsView = ({ settings, onChange }: SettingsViewProps) => (
  <details class="settings">
    <summary>Settings</summary>
    <div class="fields">
      {numbers.map(([name, label, attributes]) => (
        <label key={name}>
          <span>{label}</span>
          <input
            type="number"
            placeholder="the model's"
            {...attributes}
            value={settings[name] ?? ''}
            onInput={({ currentTarget: { value, valueAsNumber, validity } }) => {
              if (value === '') onChange({ ...settings, [name]: undefined })
              else if (validity.valid) onChange({ ...settings, [name]: valueAsNumber })
            }}
          />
        </label>
      ))}
      <label class="wide">
        <span>System message</span>
        <textarea
          rows={2}
          placeholder="the model's"
          value={settings.system}
          onInput={(event) => onChange({ ...settings, system: event.currentTarget.value })}
        />
      </label>
    </div>
  </details>
)
