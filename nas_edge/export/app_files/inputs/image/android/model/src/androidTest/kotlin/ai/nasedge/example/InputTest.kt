package ai.nasedge.example

import android.graphics.BitmapFactory
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** Runs on a phone: `gradle :model:connectedAndroidTest`. */
@RunWith(AndroidJUnit4::class)
class InputTest {
    @Test
    fun takesABitmap() {
        val context = InstrumentationRegistry.getInstrumentation().targetContext
        val content = context.assets.open("golden/0.png").use { it.readBytes() }
        val bitmap = BitmapFactory.decodeByteArray(content, 0, content.size)
        EdgeModel(context).use { model -> assertTrue(model.run(bitmap).all { it == it }) }
    }
}
